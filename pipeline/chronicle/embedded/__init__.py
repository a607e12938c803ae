"""Chronicle in one process, without a server: chDB as the store, and no broker."""
