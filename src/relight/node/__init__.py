"""What runs on this machine: jobs from the ledger on pipelines, the language model beside them, who has the card."""
