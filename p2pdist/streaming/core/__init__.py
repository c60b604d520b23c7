"""PURE: what a layer's archive holds, how it is indexed, and the tree that it makes."""
