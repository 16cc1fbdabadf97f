// Which part of a layer's work a thread of a team has.
#pragma once

#include "network/schedule.h"
#include "plan/plan.h"
#include "threads/threads.h"

namespace fastrnn {

// All of `rows` rows and this thread's part of the units, for
// threads that meet at every step. The share refers to `team`.
Share share_units(int rows, const Team& team);
Share share_units(int rows, Team&& team) = delete;

// This thread's part of the places and units of a team, to which the share of one that meets refers.
Share share_of(Split split, const RowOrder& order, const Team& team);

// visit(direction, team) for each direction in which this thread of `all` has a part: one, where two teams have one
// each, else one after the other.
template <class Visit>
void each_direction(const Plan& plan, int directions, const Team& all, Barrier (&barriers)[2], Visit visit) {
  if (plan.teams == 2 && all.size > 1) {
    const int direction = all.rank % 2;
    visit(direction, Team{all.rank / 2, (all.size + 1 - direction) / 2, &barriers[direction]});
  } else {
    for (int direction = 0; direction < directions; ++direction) visit(direction, all);
  }
}

}  // namespace fastrnn
