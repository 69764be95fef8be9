"""How far the engine is: part of what starts the engine, see `bootstrap.py`."""


def tell_progress():
    """Answers `GET /cclocal/progress` with how much of a prompt is read, and of its reply written, in tokens.

    vllm-mlx 0.6.0 tells in `/v1/status` how long a prompt is, but not how much of it is read: a minute of reading looks like one of standing still.
    An engine whose insides are not as expected tells nothing.
    """
    try:
        from fastapi import Depends
        from mlx_lm.generate import BatchGenerator
        from vllm_mlx import server
        from vllm_mlx.scheduler import Scheduler
    except ImportError as error:
        return not_applied("progress", error)
    needed = ((Scheduler, "add_request"), (BatchGenerator, "_make_batch"), (server, "app"))
    if missing := [name for owner, name in needed if not hasattr(owner, name)]:
        return not_applied("progress", f"{missing[0]} is missing")
    progress = Progress(Scheduler)
    server.app.add_api_route("/cclocal/progress", progress.asked, dependencies=[Depends(server.verify_api_key)])
    applied("progress")


class Progress:
    def __init__(self, scheduler):
        self.scheduler = None
        add = scheduler.add_request

        def watched(scheduler, *arguments, **options):
            self.scheduler = scheduler
            return add(scheduler, *arguments, **options)

        scheduler.add_request = watched

    async def asked(self):
        try:
            return self.told()
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # It changes while it is looked at.
            return {}

    def told(self):
        """Of the first request that is computed. Without one: nothing."""
        for request in list(self.scheduler.running.values()):
            prompt, left = request.num_prompt_tokens, 0
            # The tokens that are read in the step that runs count as read.
            for _, read, tokens in list(self.scheduler.batch_generator._currently_processing)[:1]:
                left = tokens - read
            return {"prompt": prompt, "cached": request.cached_tokens, "read": prompt - left, "written": request.num_output_tokens}
        return {}


