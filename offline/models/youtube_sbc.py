"""YouTubeSBC, two deep towers and a softmax that knows how often it draws what.

Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys
2019. The other items of a batch are the negatives, and from the score of each the logarithm of how
often it is drawn is taken, so that popular items are not pushed down for being popular.

Differs from the paper:
- how often an item is drawn is counted in the data (see `offline.negatives`), not estimated from a
  stream;
- the video that is being watched is the last item of the history, beside the mean of all;
- the id of an item is dropped at random, for the items that come after training.
"""

import torch
from torch import Tensor

from offline.layers import Pooling
from offline.models.two_tower import TwoTower


class _SeedPooling(Pooling):
    means = 2

    def steps(self, mask: Tensor) -> Tensor:
        every = mask.new_ones(self.length)
        seed = torch.cat([every[1:] * 0, every[:1]])
        return torch.stack([every, seed])


class YoutubeSbc(TwoTower):
    pool = _SeedPooling
    depth = 2
