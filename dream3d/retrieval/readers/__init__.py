"""Where pictures with captions come from: folders, tables and webdataset tars, all of them untrusted."""
