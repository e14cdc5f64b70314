"""A strict double of Hopsworks 5.2, as far as the unmodified client asks it. It is our belief about the server, and no part of the product."""

from .server import Double

__all__ = ['Double']
