"""The version, alone in its file so that a build can read it without importing the broker."""

VERSION = "0.1.0"
