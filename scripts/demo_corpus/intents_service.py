"""Core sentences of the intents about the service itself: complaints, praise, faults, agents and bookings.

The notation is that of `intents_orders.py`. Complaints and praise have neutral wordings too, so that sentiment
does not follow from intent.
"""

from __future__ import annotations

COMPLAINT = """
I would like to [file|lodge|make] a complaint about the branch in {city}.
Please register the following complaint: {person} put the phone down on me on {date}.
Where do I address a formal complaint about {company}?
This is to put on record that the {gadget} was sold to me as new and was not.
I wish to bring to your attention how {person} spoke to my mother on {date}.
My complaint of {date} has the reference {order}; here is the second part of it.
Please pass to your quality team: the room of our {trip} was not cleaned for {n} days.
I'd like to object to the way my case was closed on {date}.
Note for the manager in {city}: the queue was {n} hours long.
For your complaints file: the driver threw {order} over the fence.
I want it noted that {company} shared my address without asking.
Feedback on {first} at the counter in {city}: not once did he look up.
Consider this a formal objection to the treatment of {date}.
Who deals with grievances about staff? It concerns {person}.
The advert for the {plan} promised things that the {plan} doesn't hold; I ask you to look into that.
I ask for a written reply to my complaint about the {trip}.
The ombudsman told me to complain to you first, so here it is: {bank}, sold under pressure on {date}.
As to the noise in your hotel in {city}, kindly record it as a complaint.
- The service in {city} is a disgrace.
- Never have I met staff as rude as {person}.
- {company} used to be good. Now it is a shambles.
- I'm not happy at all with the way {first} treated us.
- You'd think that for {amount} somebody would at least say good morning. No.
- Not one of the promises made by {person} on {date} was kept.
- The {gadget} is rubbish and so is your service.
- Our {trip} was a nightmare from the first day to the last.
- What a let-down: cold rooms, colder staff, and {amount} for that.
- No apology, no call back, nothing. Is that how {company} treats people?
- I don't think I've ever been so badly advised as on the {bank}.
- The food on the {trip} wasn't fit for a dog.
- It's not the money, not the refund, it's being lied to by {first}.
- If rudeness were a product, you would be sold out.
- It's hard to find anything good to say about the {plan}.
I want to complain about {person}.
I wish to make a formal complaint.
This is a complaint about your service in {city}.
I'd like to complain about the way I was treated by {company}.
My complaint concerns the staff on the {trip}.
How can I file a complaint against {company}?
- I'm writing to complain about the terrible service in {city}.
"""

PRAISE = """
Please pass on to {person} in {city} that the advice about the {bank} was right.
I'd like to leave a note of recognition for {first} at the {city} desk.
A word of feedback on {person}: she dealt with {order} within {n} minutes.
Where may I leave a good review for {company}?
For {first}'s personnel file: she stayed until {hour} to sort out our booking.
I would like to nominate {person} for employee of the month.
You asked for feedback on the {gadget}: it does what it says.
My rating for the {trip}: {n} stars more than the one before.
Let the driver in {city} know that {order} came in one piece.
To whom can I address a thank-you letter for {person}?
This mail is to acknowledge the help of {first} on {date}.
Please tell {company} that the repair of {date} has held.
+ {person} at your {city} branch is a treasure.
+ I just want to say how pleased I am with the {gadget}.
+ What a service! {order} came a day early.
+ Never had a better holiday than the {trip}.
+ I can't complain: the {plan} has run without a hitch since {date}.
+ Nothing to moan about for once, the {gadget} is spot on.
+ Hats off to {first}, who found my lost parcel.
+ No problem, no delay, no fuss. That's how I like it, {company}!
+ I wasn't expecting much from the {plan}, and I was wrong: it's excellent.
+ My refund of {amount} was there in {n} hours. Impressive.
+ It's not often that a bank makes me smile, but {person} did.
+ {first} and the whole team in {city} deserve a medal.
+ You couldn't have looked after us better on the {trip}.
+ The {gadget} is worth every penny of the {amount}.
+ Not a single thing went wrong with {order}, bravo.
+ I was ready to cancel, and then {person} turned it all round. Thank you!
+ Three cheers for the fitter who came to {city} on {date}.
+ I have recommended {company} to all my friends.
+ How refreshing to speak with somebody who listens, like {first} did.
I'd like to give some feedback about {person}, who helped me on {date}.
Please thank {first} on my behalf.
I want to compliment {person} on the work done on {date}.
+ Thank you for the excellent service!
+ {first} did a great job.
+ Great service, great people, great {gadget}.
+ Compliments to the team in {city}, everything was perfect.
"""

TECHNICAL_PROBLEM = """
The app [crashes|closes] whenever I open it.
My internet in {city} has been down since {date}.
The {gadget} doesn't switch on [any more|any longer].
Version {version} of your app shows an empty screen.
I get error {err} as soon as I press "continue".
The {gadget} loses its connection every {n} minutes.
Since the update of {date} the app won't scan cheques.
The {plan} gives me a quarter of the promised speed.
The website freezes when I upload my passport for the {trip}.
The sound of the {gadget} cuts out after {n} minutes.
There's no signal in {city} on the {plan}.
The router from {company} blinks red, and error {err} appears.
I'm logged in, but the list of payments stays blank.
How do I reset the {gadget} to the factory state?
Text messages to {phone} don't go through.
The {gadget} gets hot while charging; is that a known fault?
The seat map for the {trip} doesn't load.
The chat window covers the "pay" button on small screens.
My {gadget} arrived in time, only it doesn't start.
Your map places the {city} branch in the sea.
The date picker jumps from {date} to {date2} and can't be moved.
Neither the {gadget} nor the app finds the other by Bluetooth.
The letters in your emails to {email} come out as question marks.
After {n} restarts it still says {err}. What does that stand for?
On my tablet the tracking page is cut off at the right.
Calls on the {plan} drop after {n} minutes.
The ticket machine in {city} wouldn't read the code of our {trip}.
+ Love the new app! One thing: version {version} forgets my settings.
+ The {gadget} is fantastic, only the lamp on top flickers.
- Your app is a disaster, {version} crashes all day long.
- The network in {city} is dead again and I'm fuming.
- I spent {amount} on some {gadget} that can't even hold a charge.
The app doesn't work.
My {gadget} is broken.
I keep getting an error message.
The internet connection has been very slow since {date}.
Your website is not loading.
The app crashed during the update to {version}.
My {gadget} stopped working after {n} days.
"""

SPEAK_TO_AGENT = """
I would like to talk to a [person|human being].
Can somebody ring me on {phone}?
Please put me through to {person}.
Who can I speak to about {order}?
I need an appointment at your branch in {city}, if possible on {date}.
The chat bot doesn't follow me. Is there a human?
Could {first} call me back after {hour}?
What number do I dial to reach a real adviser for the {bank}?
I'd rather discuss this on the phone than in writing; my number is {phone}.
Is anyone from the {city} office available on {date}?
Connect me with the person responsible for {company}, please.
My questions about the {trip} are easier to go through by voice.
Do you have a line on which one can talk to someone in charge?
May I have the direct number of {person}?
I want to go through the {plan} with one of your people.
Agent, please.
Let me speak to your supervisor.
The letter of {date} says I should contact my adviser. Who is that, and how?
I keep getting the menu with {n} options; which one leads to a member of staff?
Please arrange a call with {person} on {date} about the {amount}.
Rather than a form about my refund I need a conversation with someone.
Is there a desk in {city} where I can just walk in and ask?
Someone from {company} should get in touch with me at {email} for an appointment.
Before I decide to cancel I'd like to hear a specialist on the {plan}.
+ {first} was so helpful last time. Could I be put through to her again?
+ You have the nicest people on the phone; may I talk to one of them?
- Stop sending me robots, I want a human being!
- {n} transfers and not one person who can help. Get me someone competent.
- Half an hour of dreadful music. Will anybody ever pick up?
I want to speak to an agent.
Can I talk to a real person?
Please call me back on {phone}.
I'd like to speak with a manager.
Connect me to customer service, please.
Could an adviser from the {city} branch give me a call?
Is there a phone number I can call to speak to somebody?
"""

BOOKING_CHANGE = """
Can I move my {trip} from {date} to {date2}?
I need to add {person} to booking {order}.
Please change the name on the ticket: it's {person}, not {person2}.
We'd like to fly from {city} rather than from {city2}.
Is it possible to swap the {trip} for the {trip2}?
One more night in {city}, please, so that we leave on {date}.
I booked {order} for {n} people; now we're one fewer.
Could we have a later train to {city} on {date}?
How much does it cost to rebook {order}?
My flight was changed by {company}; can the hotel in {city} be shifted too?
The return should be on {date} and not on {date2}.
I want to keep the {trip}, only with a bigger room.
Would you put us on the {hour} ferry instead?
Please add a suitcase to {order}.
My daughter {first} is ill, so the {trip} has to wait until {date}.
Can the table at {company} be moved to {hour}?
I don't want to cancel the {trip} and I don't want my money back, I want another week.
Is an upgrade still available on {order}, and would {amount} cover it?
The appointment in {city} on {date} doesn't suit me; have you another one?
We need a cot and an extra bed in {city} with booking {order}.
Put the rental car for {city} in the name of {person}, please.
Instead of the aisle I'd like a seat by the window, booking {order}.
My passport number was wrong on {order}; how do I amend it?
Can {person} travel in my place on {date}?
+ We're so looking forward to the {trip}! Could we stay {n} nights longer?
+ The rooms in {city} are wonderful. May we extend until {date}?
- You moved our {trip} to {date} without asking; put it back at once.
- What a mess you made of {order}. I want the dates I booked.
- I've been passed around {n} desks just to shift one seat. Ridiculous.
I want to change my booking.
Can I rebook the {trip} for {date}?
Please change the date of my reservation to {date}.
I need to change my flight from {city} to {city2}.
Could you move my reservation {order} to {date}?
I'd like to add a passenger to my booking.
How can I change the travel dates of the {trip}?
"""

INTENTS = {
    "complaint": COMPLAINT,
    "praise": PRAISE,
    "technical_problem": TECHNICAL_PROBLEM,
    "speak_to_agent": SPEAK_TO_AGENT,
    "booking_change": BOOKING_CHANGE,
}
