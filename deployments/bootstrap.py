print("bootstrap stub")
