"""Web archives in, shards of image-text pairs out. A verb is a stage, a noun is support."""
