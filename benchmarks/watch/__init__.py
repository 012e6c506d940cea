"""What watching thousands of jobs costs, and how soon a change is seen."""
