#include "network/share.h"

namespace fastrnn {

Share share_units(int rows, const Team& team) {
  Share share = units_part(rows, team.rank, team.size);
  if (team.size > 1) {
    share.wait = [](void* t) { static_cast<const Team*>(t)->wait(); };
    share.barrier = const_cast<Team*>(&team);
  }
  return share;
}

Share share_of(Split split, const RowOrder& order, const Team& team) {
  Share share = rows_between(0, order.batch());
  if (split == Split::none || split == Split::pipeline) {
    if (team.rank > 0) share.row_end = 0;
  } else if (split == Split::rows && order.ragged()) {
    share.row_begin = team.rank, share.row_stride = team.size;  // every thread gets rows of every length
  } else if (split == Split::rows) {
    const Range mine = part_of(order.batch(), team.rank, team.size);
    share.row_begin = int(mine.begin), share.row_end = int(mine.end);
  } else {
    share = share_units(order.batch(), team);
  }
  return share;
}

}  // namespace fastrnn
