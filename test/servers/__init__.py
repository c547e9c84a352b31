"""Stand-ins of real servers, for tests: their request and response shapes, the embedded checkpoint's answers."""
