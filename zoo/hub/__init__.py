"""Published models: hubs with an index and one folder per model, searched, downloaded, published to and verified."""
