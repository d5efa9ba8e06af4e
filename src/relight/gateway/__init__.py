"""How programs elsewhere ask for pictures and text: HTTP in OpenAI's dialect and in relight's own, over one `Node`."""
