"""What a build and a training run will take: nodes, hours, bytes, requests and cost from measured rates."""
