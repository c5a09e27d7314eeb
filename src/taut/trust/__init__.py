"""Who may do what, what happened, what is sensitive."""
