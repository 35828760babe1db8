"""Synthesize: new examples from human seeds, judged, deduplicated and measured for diversity."""
