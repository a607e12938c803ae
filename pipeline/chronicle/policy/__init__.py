"""What may be seen. Pure rules over names; knows no frames, files or clock."""
