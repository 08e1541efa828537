"""How the platform is started: on a laptop (mini) and on a cluster."""
