"""The stream worker: the only importer of Faust. Fetched chunks in, acknowledged batches out."""
