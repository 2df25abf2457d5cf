"""Models on servers that speak OpenAI's protocol: asked, timed and read from outside. It starts no server."""
