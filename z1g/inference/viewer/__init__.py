"""`z1g view`: files of Gaussians on a page in the browser."""
