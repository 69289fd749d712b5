// OrderedSet: a set with ranks and prefix sums. A treap (Seidel and Aragon 1996) whose heap order
// comes from a fixed sequence of random numbers, so that equal histories give equal trees.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace limner::queue {

// Keys are unique and ordered by <. Every key carries a payload and a size >= 0. All operations
// are O(log n) expected. Used by one thread.
template <typename Key, typename Payload>
class OrderedSet {
 public:
  struct Item {
    Key key{};
    Payload payload{};
    double size = 0.0;
  };

  std::size_t size() const { return count(root_); }
  bool empty() const { return root_ == kNone; }
  double total() const { return sum(root_); }

  void insert(Item item) {
    const Index node = make(std::move(item));
    const auto [below, above] = split(root_, nodes_[node].item.key);
    root_ = merge(merge(below, node), above);
  }

  bool erase(const Key& key) {
    Index* link = &root_;
    // Counts on the way down are made again on the way up, by update_path.
    path_.clear();
    while (*link != kNone && nodes_[*link].item.key != key) {
      path_.push_back(*link);
      link = key < nodes_[*link].item.key ? &nodes_[*link].left : &nodes_[*link].right;
    }
    if (*link == kNone) return false;
    const Index gone = *link;
    *link = merge(nodes_[gone].left, nodes_[gone].right);
    for (auto node = path_.rbegin(); node != path_.rend(); ++node) update(*node);
    nodes_[gone].item = {};
    free_.push_back(gone);
    return true;
  }

  // How many keys lie below `key`, and the sum of their sizes.
  std::pair<std::size_t, double> before(const Key& key) const {
    std::size_t below = 0;
    double size = 0.0;
    for (Index node = root_; node != kNone;) {
      if (nodes_[node].item.key < key) {
        below += count(nodes_[node].left) + 1;
        size += sum(nodes_[node].left) + nodes_[node].item.size;
        node = nodes_[node].right;
      } else {
        node = nodes_[node].left;
      }
    }
    return {below, size};
  }

  // How many items begin before `limit` when they are laid end to end in order: those whose
  // predecessors' sizes sum to less. The sum of their sizes beside it.
  std::pair<std::size_t, double> begun_before(double limit) const {
    std::size_t begun = 0;
    double size = 0.0;
    for (Index node = root_; node != kNone;) {
      const double start = size + sum(nodes_[node].left);
      if (start < limit) {
        begun += count(nodes_[node].left) + 1;
        size = start + nodes_[node].item.size;
        node = nodes_[node].right;
      } else {
        node = nodes_[node].left;
      }
    }
    return {begun, size};
  }

  // The item of rank `rank` (0 is the first), which must be below size().
  const Item& at(std::size_t rank) const {
    Index node = root_;
    for (;;) {
      const std::size_t left = count(nodes_[node].left);
      if (rank == left) return nodes_[node].item;
      if (rank < left) {
        node = nodes_[node].left;
      } else {
        rank -= left + 1;
        node = nodes_[node].right;
      }
    }
  }

 private:
  using Index = std::uint32_t;
  static constexpr Index kNone = UINT32_MAX;

  struct Node {
    Item item;
    double sum = 0.0;  // of the subtree
    Index count = 1;
    Index left = kNone;
    Index right = kNone;
    std::uint32_t heap = 0;  // a parent's is never below its children's
  };

  std::size_t count(Index node) const { return node == kNone ? 0 : nodes_[node].count; }
  double sum(Index node) const { return node == kNone ? 0.0 : nodes_[node].sum; }

  Index make(Item item) {
    random_ = random_ * 6364136223846793005ULL + 1442695040888963407ULL;
    Node node;
    node.sum = item.size;
    node.heap = static_cast<std::uint32_t>(random_ >> 32);
    node.item = std::move(item);
    if (free_.empty()) {
      nodes_.push_back(std::move(node));
      return static_cast<Index>(nodes_.size() - 1);
    }
    const Index index = free_.back();
    free_.pop_back();
    nodes_[index] = std::move(node);
    return index;
  }

  void update(Index index) {
    Node& node = nodes_[index];
    node.count = static_cast<Index>(count(node.left) + count(node.right) + 1);
    node.sum = sum(node.left) + sum(node.right) + node.item.size;
  }

  std::pair<Index, Index> split(Index node, const Key& key) {
    if (node == kNone) return {kNone, kNone};
    if (nodes_[node].item.key < key) {
      const auto [below, above] = split(nodes_[node].right, key);
      nodes_[node].right = below;
      update(node);
      return {node, above};
    }
    const auto [below, above] = split(nodes_[node].left, key);
    nodes_[node].left = above;
    update(node);
    return {below, node};
  }

  Index merge(Index below, Index above) {
    if (below == kNone) return above;
    if (above == kNone) return below;
    if (nodes_[below].heap > nodes_[above].heap) {
      const Index right = merge(nodes_[below].right, above);
      nodes_[below].right = right;
      update(below);
      return below;
    }
    const Index left = merge(below, nodes_[above].left);
    nodes_[above].left = left;
    update(above);
    return above;
  }

  std::vector<Node> nodes_;
  std::vector<Index> free_;
  std::vector<Index> path_;
  Index root_ = kNone;
  std::uint64_t random_ = 0x9e3779b97f4a7c15ULL;
};

}  // namespace limner::queue
