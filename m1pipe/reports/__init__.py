"""HTML reports: prose in the templates, numbers from Python."""
