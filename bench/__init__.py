"""Speed and memory of fastrnn beside its peers: `python -m bench`, or pytest bench/."""
