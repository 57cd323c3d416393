"""How far to believe an explanation: faithfulness, completeness, stability, randomization."""
