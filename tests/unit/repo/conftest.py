from tests.support.stores import home, source, store, tiny

__all__ = ["home", "source", "store", "tiny"]
