"""Tables of text: headers, lines, numbers."""
