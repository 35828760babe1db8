"""What runs where: deployments, configurations, services and the local stack."""
