"""Settings as frozen dataclasses, as nested tables, as TOML."""
