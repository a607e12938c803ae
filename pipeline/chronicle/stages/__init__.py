"""The path of a batch, in flow order: decode → validate → sanitize → route. Pure: frames in, frames out."""
