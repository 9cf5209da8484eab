// Balance::kLevels. Rows come in groups, one a micro-batch. Each group has a level, the pairs that
// its rows are to have: the mean of what is left, or the pairs of the longest document left where
// that is more. Longest document first, each goes to the row farthest below its level that has room
// (longest processing time, with capacities); then the heaviest row of each group trades a
// document for shorter ones of another row while that makes the step faster.
#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

#include "core/check.h"
#include "core/packing_rows.h"

namespace orrery {
namespace {

constexpr int kTradesPerRow = 2;
constexpr std::size_t kPartners = 6;       // rows that the heaviest of a group may trade with
constexpr std::size_t kOffers = 8;         // sets of documents tried against one
constexpr std::int64_t kGoodEnough = 400;  // a group within 1/400 of its mean is left alone

struct Item {
  Piece piece;
  std::int64_t pairs = 0;
  std::int64_t tokens() const { return piece.tokens; }
};

struct Bin {
  std::vector<Item> items;  // longest first
  std::int64_t free = 0, pairs = 0;

  void add(const Item& item) {
    free -= item.tokens();
    pairs += item.pairs;
    const auto shorter = [](const Item& a, const Item& b) { return a.tokens() > b.tokens(); };
    items.insert(std::upper_bound(items.begin(), items.end(), item, shorter), item);
  }
  Item take(std::size_t at) {
    const Item item = items[at];
    free += item.tokens();
    pairs -= item.pairs;
    items.erase(items.begin() + static_cast<std::ptrdiff_t>(at));
    return item;
  }
};

Item item_of(const Piece& piece) {
  return {piece, document_pairs(piece.tokens)};
}

// Of the rows' pieces: whole documents again, or full rows and a rest of those longer than a row;
// longest first.
std::vector<Item> items_of(const std::vector<PackedRow>& rows, std::int64_t row_tokens) {
  std::vector<Piece> pieces;
  for (const PackedRow& row : rows) pieces.insert(pieces.end(), row.begin(), row.end());
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return std::pair(a.document, a.begin) < std::pair(b.document, b.begin);
  });
  std::vector<Item> items;
  for (std::size_t i = 0; i < pieces.size();) {
    Piece whole = pieces[i];
    for (++i; i < pieces.size() && pieces[i].document == whole.document; ++i) {
      whole.tokens += pieces[i].tokens;
    }
    for (; whole.tokens > 0;) {
      Piece part = whole;
      part.tokens = std::min(whole.tokens, row_tokens);
      items.push_back(item_of(part));
      whole.begin += part.tokens;
      whole.tokens -= part.tokens;
    }
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const Item& a, const Item& b) { return a.tokens() > b.tokens(); });
  return items;
}

// The level of each group; groups of `size` rows.
std::vector<std::int64_t> levels(const std::vector<Item>& items, std::int64_t groups,
                                 std::int64_t size) {
  std::int64_t rest = 0;
  for (const Item& item : items) rest += item.pairs;
  std::vector<std::int64_t> out;
  std::size_t longest = 0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t mean = rest / (size * (groups - g));
    const std::int64_t most = longest < items.size() ? items[longest].pairs : 0;
    out.push_back(std::max(mean, most));
    rest = std::max<std::int64_t>(0, rest - size * out.back());
    longest += static_cast<std::size_t>(size);
  }
  return out;
}

// Places items, longest first; returns those that no bin has room for. A bin waits aside while the
// items are too long for it.
std::vector<Item> place_by_level(const std::vector<Item>& items,
                                 const std::vector<std::int64_t>& level, std::vector<Bin>& bins) {
  using Entry = std::pair<std::int64_t, std::int64_t>;  // key, -bin: the first of equals
  std::priority_queue<Entry> open, aside;               // by what lacks; by free tokens
  const std::int64_t size = std::ssize(bins) / std::ssize(level);
  const auto bin = [&](std::int64_t b) -> Bin& { return bins[static_cast<std::size_t>(b)]; };
  const auto lacks = [&](std::int64_t b) {
    return level[static_cast<std::size_t>(b / size)] - bin(b).pairs;
  };
  for (std::int64_t b = 0; b < std::ssize(bins); ++b) open.emplace(lacks(b), -b);
  std::vector<Item> homeless;
  for (const Item& item : items) {
    while (!aside.empty() && aside.top().first >= item.tokens()) {
      open.emplace(lacks(-aside.top().second), aside.top().second);
      aside.pop();
    }
    while (!open.empty() && bin(-open.top().second).free < item.tokens()) {
      const std::int64_t b = -open.top().second;
      open.pop();
      if (bin(b).free > 0) aside.emplace(bin(b).free, -b);
    }
    if (open.empty()) {
      homeless.push_back(item);
      continue;
    }
    const std::int64_t b = -open.top().second;
    open.pop();
    bin(b).add(item);
    open.emplace(lacks(b), -b);
  }
  return homeless;
}

// One item of a heavy bin against some of a light one.
struct Trade {
  std::size_t give = 0;
  std::vector<std::size_t> take;
  std::int64_t moved = 0;  // pairs
};

// The trade that brings the two bins closest to each other; `moved` is 0 where there is none.
Trade best_trade(const Bin& heavy, const Bin& light) {
  const std::int64_t gap = heavy.pairs - light.pairs;
  Trade best;
  const auto distance = [gap](std::int64_t moved) { return std::abs(2 * moved - gap); };
  for (std::size_t x = 0; x < heavy.items.size(); ++x) {
    const Item& given = heavy.items[x];
    const std::int64_t most = given.tokens() + heavy.free;
    const std::int64_t least = given.tokens() - light.free;
    std::size_t offers = 0;
    for (std::size_t from = 0; from <= light.items.size() && offers < kOffers; ++from) {
      if (from < light.items.size() && light.items[from].tokens() >= given.tokens()) continue;
      ++offers;
      Trade trade{x, {}, given.pairs};
      std::int64_t tokens = 0;
      for (std::size_t y = from; y < light.items.size() && tokens < least; ++y) {
        const Item& taken = light.items[y];
        if (tokens + taken.tokens() > most) continue;
        tokens += taken.tokens();
        trade.moved -= taken.pairs;
        trade.take.push_back(y);
      }
      if (tokens < least || trade.moved <= 0 || trade.moved >= gap) continue;
      if (best.moved == 0 || distance(trade.moved) < distance(best.moved)) best = std::move(trade);
    }
  }
  return best;
}

void apply(const Trade& trade, Bin& heavy, Bin& light) {
  std::vector<Item> taken;
  for (auto y = trade.take.rbegin(); y != trade.take.rend(); ++y) taken.push_back(light.take(*y));
  light.add(heavy.take(trade.give));
  for (const Item& item : taken) heavy.add(item);
}

// Trades between the rows of a step, whose groups keep their places.
class Trader {
 public:
  Trader(std::vector<Bin>& bins, std::int64_t groups)
      : bins_(bins), size_(std::ssize(bins) / groups), tops_(static_cast<std::size_t>(groups)) {
    for (std::int64_t g = 0; g < groups; ++g) find_top(g);
  }

  void run() {
    std::int64_t left = kTradesPerRow * std::ssize(bins_);
    for (bool moved = true; moved && left > 0;) {
      moved = false;
      for (std::int64_t g = 0; g < std::ssize(tops_); ++g) {
        while (left > 0 && is_uneven(g) && improve(g)) {
          --left;
          moved = true;
        }
      }
    }
  }

 private:
  Bin& bin(std::int64_t b) { return bins_[static_cast<std::size_t>(b)]; }
  std::int64_t& top(std::int64_t g) { return tops_[static_cast<std::size_t>(g)]; }

  void find_top(std::int64_t g) {
    top(g) = g * size_;
    for (std::int64_t b = g * size_; b < (g + 1) * size_; ++b) {
      if (bin(b).pairs > bin(top(g)).pairs) top(g) = b;
    }
  }

  bool is_uneven(std::int64_t g) {
    std::int64_t sum = 0;
    for (std::int64_t b = g * size_; b < (g + 1) * size_; ++b) sum += bin(b).pairs;
    const std::int64_t mean = sum / size_;
    return bin(top(g)).pairs - mean > mean / kGoodEnough;
  }

  // The lightest rows, each by what it may take before its group is slower.
  std::vector<std::int64_t> partners(std::int64_t g) {
    std::vector<std::pair<std::int64_t, std::int64_t>> by_room;
    for (std::int64_t b = 0; b < std::ssize(bins_); ++b) {
      const std::int64_t most = bin(top(b / size_)).pairs;
      if (b != top(g)) by_room.emplace_back(bin(b).pairs - most, b);
    }
    const std::size_t n = std::min(kPartners, by_room.size());
    std::partial_sort(by_room.begin(), by_room.begin() + static_cast<std::ptrdiff_t>(n),
                      by_room.end());
    std::vector<std::int64_t> out;
    for (std::size_t i = 0; i < n; ++i) out.push_back(by_room[i].second);
    return out;
  }

  bool improve(std::int64_t g) {
    const std::int64_t heavy = top(g);
    for (const std::int64_t light : partners(g)) {
      const std::int64_t room = bin(top(light / size_)).pairs - bin(light).pairs;
      if (room <= 0) return false;
      const Trade trade = best_trade(bin(heavy), bin(light));
      const bool same = light / size_ == g;
      if (trade.moved <= 0 || (!same && trade.moved > room)) continue;
      apply(trade, bin(heavy), bin(light));
      find_top(g);
      find_top(light / size_);
      return true;
    }
    return false;
  }

  std::vector<Bin>& bins_;
  std::int64_t size_;
  std::vector<std::int64_t> tops_;  // the heaviest row of each group
};

// Cuts what has no room whole where rows end, longest first into the roomiest row.
void fill_gaps(std::vector<Item> homeless, std::vector<Bin>& bins) {
  using Entry = std::pair<std::int64_t, std::int64_t>;
  std::priority_queue<Entry> room;
  for (std::int64_t b = 0; b < std::ssize(bins); ++b) {
    const std::int64_t free = bins[static_cast<std::size_t>(b)].free;
    if (free > 0) room.emplace(free, -b);
  }
  for (const Item& item : homeless) {
    for (Piece rest = item.piece; rest.tokens > 0;) {
      CHECK(!room.empty(), "fewer tokens of room than were placed before");
      const auto [free, b] = room.top();
      room.pop();
      Piece part = rest;
      part.tokens = std::min(free, rest.tokens);
      bins[static_cast<std::size_t>(-b)].add(item_of(part));
      if (free > part.tokens) room.emplace(free - part.tokens, b);
      rest.begin += part.tokens;
      rest.tokens -= part.tokens;
    }
  }
}

// The pieces of a row in the order of their documents; one that is cut ends its row.
PackedRow row_of(const Bin& bin, const std::vector<std::int64_t>& documents) {
  PackedRow row;
  for (const Item& item : bin.items) row.push_back(item.piece);
  const auto cut = [&](const Piece& p) {
    return p.begin + p.tokens < documents[static_cast<std::size_t>(p.document)];
  };
  std::sort(row.begin(), row.end(), [&](const Piece& a, const Piece& b) {
    return std::tuple(cut(a), a.document, a.begin) < std::tuple(cut(b), b.document, b.begin);
  });
  return row;
}

// Cells of `micro_batch` rows with close sums, heaviest first: each row goes to the lightest cell
// that is not full.
std::vector<std::vector<const Bin*>> cells_of(const std::vector<const Bin*>& group,
                                              std::int64_t ranks) {
  const std::size_t full = group.size() / static_cast<std::size_t>(ranks);
  std::vector<std::vector<const Bin*>> cells(static_cast<std::size_t>(ranks));
  std::vector<std::int64_t> sums(cells.size());
  using Entry = std::pair<std::int64_t, std::size_t>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> lightest;
  for (std::size_t c = 0; c < cells.size(); ++c) lightest.emplace(0, c);
  for (const Bin* bin : group) {
    const std::size_t c = lightest.top().second;
    lightest.pop();
    cells[c].push_back(bin);
    sums[c] += bin->pairs;
    if (cells[c].size() < full) lightest.emplace(sums[c], c);
  }
  std::vector<std::size_t> order(cells.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return sums[a] > sums[b]; });
  std::vector<std::vector<const Bin*>> sorted;
  for (const std::size_t c : order) sorted.push_back(std::move(cells[c]));
  return sorted;
}

// Heaviest rows in one micro-batch; in each, the heaviest cell to the rank with least so far.
std::vector<const Bin*> dealt(const std::vector<Bin>& bins, const Deal& deal) {
  std::vector<const Bin*> sorted;
  for (const Bin& bin : bins) sorted.push_back(&bin);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Bin* a, const Bin* b) { return a->pairs > b->pairs; });
  std::vector<std::int64_t> sums(static_cast<std::size_t>(deal.ranks));
  std::vector<const Bin*> out(bins.size());
  const std::int64_t group = deal.ranks * deal.micro_batch;
  for (std::int64_t m = 0; m < deal.micro_batches; ++m) {
    const auto first = sorted.begin() + m * group;
    const auto cells = cells_of({first, first + group}, deal.ranks);
    std::vector<std::size_t> order(sums.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return sums[a] < sums[b]; });
    for (std::size_t c = 0; c < cells.size(); ++c) {
      auto at = out.begin() + m * group + static_cast<std::int64_t>(order[c]) * deal.micro_batch;
      for (const Bin* bin : cells[c]) {
        *at++ = bin;
        sums[order[c]] += bin->pairs;
      }
    }
  }
  return out;
}

// The naive rows as bins, heaviest groups first, for trades alone.
std::vector<Bin> bins_of(const std::vector<PackedRow>& rows, std::int64_t row_tokens) {
  std::vector<Bin> bins;
  for (const PackedRow& row : rows) {
    bins.emplace_back().free = row_tokens;
    for (const Piece& piece : row) bins.back().add(item_of(piece));
  }
  std::stable_sort(bins.begin(), bins.end(),
                   [](const Bin& a, const Bin& b) { return a.pairs > b.pairs; });
  return bins;
}

}  // namespace

void balance_rows(std::vector<PackedRow>& rows, const std::vector<std::int64_t>& documents,
                  std::int64_t row_tokens, const Deal& deal, Packing mode) {
  std::vector<Item> items = items_of(rows, row_tokens);
  // A document that goes on in what was left over must end a row: it fills the last gaps.
  const auto goes_on = [&](const Item& item) {
    const Piece& p = item.piece;
    return p.tokens < row_tokens &&
           p.begin + p.tokens < documents[static_cast<std::size_t>(p.document)];
  };
  const auto last = std::stable_partition(items.begin(), items.end(),
                                          [&](const Item& item) { return !goes_on(item); });
  const std::vector<Item> unfinished(last, items.end());
  items.erase(last, items.end());
  std::vector<Bin> bins(rows.size());
  for (Bin& bin : bins) bin.free = row_tokens;
  const std::int64_t size = deal.ranks * deal.micro_batch;
  std::vector<Item> homeless = place_by_level(items, levels(items, deal.micro_batches, size), bins);
  if (!homeless.empty() && mode == Packing::kSoft) {
    bins = bins_of(rows, row_tokens);
    homeless.clear();
  }
  homeless.insert(homeless.end(), unfinished.begin(), unfinished.end());
  Trader(bins, deal.micro_batches).run();
  fill_gaps(std::move(homeless), bins);
  std::vector<PackedRow> balanced;
  for (const Bin* bin : dealt(bins, deal)) balanced.push_back(row_of(*bin, documents));
  const PackedWork before = packed_work(rows, deal), after = packed_work(balanced, deal);
  const auto slowest = [](const PackedWork& work) {
    return std::pair(work.lockstep_pairs,
                     *std::max_element(work.rank_pairs.begin(), work.rank_pairs.end()));
  };
  if (slowest(after) < slowest(before)) rows = std::move(balanced);
}

}  // namespace orrery
