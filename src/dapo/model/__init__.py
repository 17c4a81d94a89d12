"""The method's core: CLIP towers, prompts, detector and model folders (torch lives here and above)."""
