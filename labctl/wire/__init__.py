"""The wire: links to instruments, and transcripts of what was said on them."""
