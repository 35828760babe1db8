"""A challenger beside the champion on live traffic: what is watched, and when it is enough."""
