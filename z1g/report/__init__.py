"""What people look at after a run: tables and one HTML page, made from the files that the stages left."""
