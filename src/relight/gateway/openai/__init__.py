"""OpenAI's dialect: its shapes of requests and answers, and nothing that decides."""
