"""YAML text -> Recipe: strict YAML with positions, schema, overrides, wording of errors."""
