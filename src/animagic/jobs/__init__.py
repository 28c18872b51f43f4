"""Videos as jobs that outlive a page, a connection and a server: what app and server share."""
