"""Masks elsewhere: on the Hub, or in folders on any file system. Pushed, pulled and listed by ``maskhub.api``."""
