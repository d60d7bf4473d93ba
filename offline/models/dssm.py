"""DSSM, the two-tower model.

Huang et al., "Learning Deep Structured Semantic Models for Web Search using Clickthrough Data",
CIKM 2013. Two independent networks map a user and an item to one space; their cosine is the score.

Differs from the paper:
- the user side reads an id, a profile and a history of items instead of a query text; the history,
  and each of several, is pooled twice, by the mean and by learned weights of recency;
- the item side reads an id besides its content; the id is dropped at random in training, so that
  the out-of-vocabulary id of a new item is one that the tower knows;
- one hidden layer, and in-batch negatives instead of four drawn ones (see the recipe).
"""

from offline.models.two_tower import TwoTower


class Dssm(TwoTower):
    pass
