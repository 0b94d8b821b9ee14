"""Routes in the shape of OpenAI's interface, for the clients that speak it."""
