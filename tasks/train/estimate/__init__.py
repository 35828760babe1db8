"""What a training will take, before it starts: time, memory and dollars on this hardware."""
