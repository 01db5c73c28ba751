"""How studies travel to other machines: Ray jobs, Kubernetes, schedulers."""
