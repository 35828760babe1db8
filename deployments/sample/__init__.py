"""The sample deployment: invented support messages of an electronics shop with their tickets."""
