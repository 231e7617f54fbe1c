"""Using a trained editor: load it, edit, look at what an edit did, join edits, save them."""
