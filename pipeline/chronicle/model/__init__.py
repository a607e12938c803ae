"""The nouns of Chronicle as data: chunks in, a batch of changes out. Pure: no clock, environment, socket or thread."""
