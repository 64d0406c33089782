"""How often a model holds when it is attacked: plugins × strategies, our own attackers, rules and a judge (paper section 4.3)."""
