"""A model over HTTP and in a browser: OpenAI-compatible completions and embeddings, masks, scores, a page.

    settings        what the person who starts the server decides
    run             the socket, the models, uvicorn, an orderly end
    app             routes, and what stands around each of them (guards, admission, metrics)
    writing         /v1/completions, on one of two engines: llama (a process of its own) or transformers
    reading         /v1/fill-mask, /v1/score, /v1/embeddings: what arrives together is computed together
    page            the web page at /

Nothing is imported here: the llama process imports this package too, and needs no torch.
"""
