"""How fast a gateway is: contestants, loads, and what is read off them."""
