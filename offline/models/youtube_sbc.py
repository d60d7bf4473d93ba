"""YouTubeSBC, two deep towers and a softmax that knows how often it draws what.

Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys
2019. The other items of a batch are the negatives, and from the score of each the logarithm of how
often it is drawn is taken, so that popular items are not pushed down for being popular.

Differs from the paper:
- how often an item is drawn is counted in the data (see `offline.negatives`), not estimated from a
  stream;
- the video that is being watched is not given apart: learned weights of recency say how much the
  last items count, beside the mean of all;
- the id of an item is dropped at random, for the items that come after training.
"""

from offline.models.two_tower import TwoTower


class YoutubeSbc(TwoTower):
    depth = 2
